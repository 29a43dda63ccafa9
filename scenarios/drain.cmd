# Pods that do not leave hold their node up for two minutes at most.
start
create c1 np1=2
settle
pods vmss000001 3
pool c1 np1 1
wait 30
show c1
settle
show c1
operations
