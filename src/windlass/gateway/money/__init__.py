"""What a call costs: tokens as providers count them or as estimated, and the prices of models."""
