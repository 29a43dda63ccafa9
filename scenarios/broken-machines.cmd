# Machines that stop are started again.
start
create c1 np1=2
settle
trace
crash vmss000001
wait 1
show c1
settle
trace
crash control-plane-0
wait 1
show c1
settle
trace
