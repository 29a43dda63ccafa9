# A disruption budget that allows nothing: the node is waited for as long as its pool says, then it takes pods again, what was added for
# the upgrade goes, and the operation fails. A later request goes on.
start
create c1 np1=3
settle
settings c1 np1 drain=5
settle
pods vmss000002 3
upgrade c1 1.37.1
wait 200
show c1
wait 300
show c1
operations
pods vmss000002 0
upgrade c1 1.37.1
settle
show c1

# The same where such a node is to be put aside: another one does its work, the others are upgraded, and the operation tells of it.
create c2 np1=3
settle
settings c2 np1 drain=5 undrainable=Cordon
settle
upgrade c2 1.37.1 control-plane
settle
pods vmss000001 2
upgrade c2 1.37.1
wait 600
show c2
world
operations
pods vmss000001 0
upgrade c2 1.37.1
settle
show c2

# An empty node is kept for a while before the next one begins; no clock ends the operation.
create c3 np1=3
settle
settings c3 np1 soak=15
settle
upgrade c3 1.37.1
wait 600
show c3
settle
show c3
operations

# Killed while pods hold a node up: it is given no more time than it had.
create c4 np1=2
settle
settings c4 np1 drain=10
settle
pods vmss000001 1
upgrade c4 1.37.1
wait 400
kill
start
wait 300
show c4
operations
stop
