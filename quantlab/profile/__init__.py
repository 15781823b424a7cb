"""What every layer costs and saves, and what follows from it: skip lists, predictions, the predicted front."""
