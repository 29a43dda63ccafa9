# A store is lost: nothing of the clusters that it described is deleted. Put back, they are known again and nothing restarts.
start
create c1 np1=2
create c2 np1=1 tier=Standard
settle
stop
save-store
lose-store
trace
start
wait 700
unknown
show c1
trace
stop
restore-store
start
wait 700
settle
unknown
show c1
show c2
trace
