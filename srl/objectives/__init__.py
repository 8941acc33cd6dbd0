"""What is asked, what it is compared with, and who writes the row: one file a method, and their table."""
