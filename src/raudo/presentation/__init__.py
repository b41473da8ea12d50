"""What people see: numbers as text, plots, explanations, tables and progress in the terminal."""
