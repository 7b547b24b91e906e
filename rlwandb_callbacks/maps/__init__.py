"""Maps of data sets, and the states of a policy on them."""
