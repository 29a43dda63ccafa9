# A cluster is stopped: nothing of it runs, its data and its nodes' names are kept. What is so already is no operation.
start
create c1 np1=2
settle
object c1 kept yes
trace
power c1 off
wait 0.05
show c1
settle
show c1
trace
power c1 off
# Hardly anything may be asked of it.
pool c1 np1 3
label c1 np1 team=blue
upgrade c1 1.37.1
# Neither time nor another process of the service nor a host without power changes that.
kill
start
settle
wait 100000
settle
show c1
trace
# It comes back with what it had.
power c1 on
wait 2
show c1
settle
show c1
object c1 kept
trace
power c1 on
create c2 np1=1 tier=Standard
settle
# Three members, turned round on the way: the last wish wins, and operations say so.
power c2 off
wait 1
power c2 on
settle
show c2
power c2 off
settle
power c2 on
wait 5
power c2 off
settle
show c2
power c2 on
wait 1
abort c2
settle
show c2
# Killed in the middle of a start, and again.
power c2 on
wait 0.5
kill
start
wait 2
kill
wait 60
start
settle
show c2
operations
# A stopped cluster can be deleted.
power c1 off
settle
delete c1
settle
show c1
