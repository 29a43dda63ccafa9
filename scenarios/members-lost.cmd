# Two of three members lose their disks: no majority comes back by itself, and the state comes back from the backup.
start
create c1 np1=1 tier=Standard
settle
wait 60
vanish control-plane-1
vanish control-plane-2
settle
show c1
operations
