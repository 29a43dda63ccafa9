# Many machines that fail together are no bad machines: the breaker trips, nothing is replaced, and all is well afterwards.
start
create c1 np1=6
settle
trace
ail aks-np1 silent replace
wait 600
show c1
trace
heal
settle
show c1
trace
