# Three control plane members: a lost one comes back, one that nothing helps is replaced, and a change of tier takes two away.
start
create c1 np1=1 tier=Standard
settle
show c1
trace
vanish control-plane-1
settle
show c1
trace
ail control-plane-0 hangs replace
settle
show c1
trace
tier c1 Free
settle
show c1
operations
