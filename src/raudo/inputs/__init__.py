"""What work starts from, checked before it starts: the model, labelled and calibration images."""
