"""Out-of-distribution (OOD) detection: photos of none of the classes.

reference_bank compares photos with training photos and sets the threshold;
photo_features computes what is compared; detector finds or builds the bank of a
checkpoint and applies it; graph_nodes does the same in an inference graph;
refused_photos collects for the report what was refused.
"""
