"""What follows from layer sensitivities: automatic skip lists, predictions, and the predicted front."""
