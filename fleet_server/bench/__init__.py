"""Speed and memory, always beside a limit that was measured in the same run: these figures are ratios first."""
