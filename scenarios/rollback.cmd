# A way back for a control plane: the programs of the next minor release run and emulate the present one, until that is finalised.
start
create c1 np1=1
settle
trace
soak c1 1.37.1
settle
trace
show c1
# Nodes of the newer release come after it is finalised; a plain upgrade of the pool is refused, and one of the cluster takes no pool along.
upgrade c1 1.37.1 np1
pool c1 np1 2
settle
show c1
roll-back c1 1.36.3
settle
show c1
operations

# Of three members one at a time, there and back; the second time it is finalised, and does not go back any more.
create c2 np1=1 tier=Standard
settle
soak c2 1.37.1
settle
roll-back c2 1.36.3
settle
show c2
soak c2 1.37.1
settle
finalize c2
settle
roll-back c2 1.36.3
upgrade c2 1.37.1
settle
show c2

# Killed on the way there, and on the way back; nothing is upgraded while it goes back.
create c3 np1=1 tier=Standard
settle
soak c3 1.37.1
wait 4
kill
start
settle
roll-back c3 1.36.3
wait 4
upgrade c3 1.37.1 control-plane
kill
start
settle
show c3

# A pool goes back to the version that it had, one step; the control plane and the other pools stay.
create c4 np1=1 np2=2
settle
upgrade c4 1.37.1
settle
roll-back c4 np2 1.36.3
wait 5
show c4
settle
show c4
roll-back c4 np2 1.37.1
settle
show c4
stop
