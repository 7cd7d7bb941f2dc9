"""What a user asked for: checked, and answered where the name is not ours."""
