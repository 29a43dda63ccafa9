# M9: with the tenant's own CNI plug-in there is no support of the network; all else is supported.
start
create c1 np1=1 plugin=none
settle
support c1 aks 0
support c1 hci 0

# C5: an engine's production has three masters and three agents.
support c1 hub-engine 0
create c2 np1=3 tier=Standard
settle
support c2 hub-engine 0
support c2 hub 0
support c2 elsewhere 0
stop
