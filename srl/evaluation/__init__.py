"""What is measured: held-out steps and problems, benchmarks, floors, alarms."""
