"""The numbers behind a report: runs put together by stack, estimates over seeds, comparisons of stacks."""
