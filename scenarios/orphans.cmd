# What belongs to nobody is removed at start, and in the course of every resync.
orphans
start
create c1 np1=1
settle
trace
orphans
wait 400
settle
trace
