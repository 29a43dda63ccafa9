# A machine that vanishes, hangs, cannot keep its kubelet alive, or is broken for good is repaired by what helps, from little to much.
start
create c1 np1=4
settle
vanish vmss000001
settle
show c1
trace
ail vmss000000 hangs reboot
settle
show c1
trace
ail vmss000002 ends:kubelet reimage
settle
show c1
trace
ail vmss000003 not-ready replace
settle
show c1
trace
