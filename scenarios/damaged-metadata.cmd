# What the fabric has written down about machines is damaged: they go on, and it is written anew. Nothing is made anew.
start
create c1 np1=1
settle
damage control-plane-0
damage vmss000000
object c1 kept yes
kill
start
wait 30
trace
object c1 kept
show c1
# A control plane that vanishes for real is made anew; its nodes go on.
vanish control-plane-0
settle
trace
