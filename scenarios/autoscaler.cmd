# A pool with an autoscaler follows the need of the pods.
start
create c1 np1=1
settle
autoscale c1 np1 1 3
wait 20
placed c1
trace
# An unschedulable pod adds one node, and only one.
pod c1 a 1500
wait 20
placed c1
pod c1 b 1500
wait 60
placed c1
trace
# The maximum limits growth: two more nodes are needed, one is added.
pod c1 c 1500
pod c1 d 1500
wait 60
placed c1
# The service is killed and started: the memory of unneeded nodes is kept.
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
# Failed calls are repeated.
fail work 3
fail tell-work 2
pod c1 e 1500
wait 120
placed c1
drop-pod c1 e
delete c1
settle
records
