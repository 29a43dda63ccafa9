# Another version of Kubernetes: the control plane first, on the disk that it has; then nodes, one beside the other.
start
create c1 np1=2
settle
upgrade c1 1.37.1
wait 2
show c1
settle
show c1
operations

# Of three members one at a time; nodes stay as they are.
create c2 np1=1 tier=Standard
settle
trace
upgrade c2 1.37.1 control-plane
settle
trace
show c2

# Nodes never before their control plane, never back, and the control plane neither.
create c3 np1=1
settle
upgrade c3 1.37.1 np1
upgrade c1 1.36.3
upgrade c3 1.37.1
wait 4
# Thought better of: nodes turn round, a control plane that has gone on stays.
abort c3
settle
show c3

# A new image that cannot be had: nothing that runs is stopped for it.
create c4 np1=1
settle
trace
fail ensure-image 3
upgrade c4 1.37.1
wait 1
show c4
settle
trace
show c4
stop
