"""What makes the system better from what came of it: grades of finished calls, and what follows from them."""
