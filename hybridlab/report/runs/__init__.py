"""The numbers of a report: runs by stack, estimates over seeds, comparisons of stacks."""
