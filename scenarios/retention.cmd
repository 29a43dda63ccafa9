# Ended operations can be asked for during seven days; an idle cluster stays as it is.
resync 7200
start
create c1 np1=1
settle
wait 590000
operations
wait 20000
operations
show c1
