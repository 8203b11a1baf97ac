"""The command `probemb`: train on a folder of labelled clouds or images, predict others, evaluate, check."""
