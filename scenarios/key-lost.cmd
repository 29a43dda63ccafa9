# The disk of a machine loses the key that the machine is known by. Its agent makes another one and asks to be enrolled again, and its token is
# used up: no restart would help. It is made anew at once, a node as the only control plane machine, whose state comes back from the backup.
start
create c1 np1=2
settle
object c1 note kept
wait 5
trace
lose-key vmss000000
wait 15
settle
trace
show c1
lose-key control-plane-0
wait 15
settle
trace
show c1
object c1 note
operations
