# A cluster of two nodes, from the request to the end of its operation. Machines are started side by side.
start
create c1 np1=2
settle
trace
show c1
operations
# Nothing happens to a cluster that is what it is to be.
wait 20
trace
