"""Both experiments of the paper from data to report, their variants, baselines and intervals."""
