"""The step styles: each reads a solution's text and says where its steps begin and end."""
