# An abort returns to what was reached last, at once, and the result is consistent.
start
create c1 np1=1
settle
pool c1 np1 4
wait 1
abort c1
show c1
settle
show c1
operations
# An aborted creation leaves nothing but the cluster's record, until the next request.
create c2 np1=2
wait 1
abort c2
settle
show c2
create c2 np1=1
settle
show c2
operations
