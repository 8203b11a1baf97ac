"""The command `probemb`: train on a folder of labelled clouds, predict others, evaluate, check."""
