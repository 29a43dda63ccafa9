# What fails is tried again with growing pauses; people are told after the third time.
start
fail ensure-network 1
fail ensure-machine 12
fail apply 2
create c1 np1=2
wait 1
show c1
settle
trace
show c1
operations
