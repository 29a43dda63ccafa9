# A pool with an autoscaler has the nodes that its pods need.
start
create c1 np1=1
settle
autoscale c1 np1 1 3
wait 20
placed c1
trace
# A pod that does not fit brings a node, and one alone.
pod c1 a 1500
wait 20
placed c1
pod c1 b 1500
wait 60
placed c1
trace
# Its range is its range: two nodes more are wanted, one comes.
pod c1 c 1500
pod c1 d 1500
wait 60
placed c1
# The service goes and comes; what is remembered of nodes that nobody needs is not lost with it.
drop-pod c1 b
drop-pod c1 d
drop-pod c1 c
wait 300
kill
wait 60
start
wait 330
placed c1
trace
wait 300
placed c1
show c1
# Calls that fail are made again.
fail work 3
fail tell-work 2
pod c1 e 1500
wait 120
placed c1
drop-pod c1 e
delete c1
settle
records
