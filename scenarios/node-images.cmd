# Node images have builds: a pool gets the newest when its nodes are asked for, and keeps it until somebody asks for a newer one. Of the first
# cluster nothing is known of images: its nodes boot whichever there is of their version.
start
create c0 np1=1
settle
images c0
image 1.36.3 2026.01.01
create c1 np1=2
settle
images c1
image 1.36.3 2026.01.08
pool c1 np1 3
settle
images c1
renew c1 np1
wait 4
show c1
settle
images c1

# Back to the one before: one step.
roll-back c1 np1 1.36.3
settle
images c1
operations

# Another version: the newest build of that one.
create c2 np1=1
settle
image 1.37.1 2026.01.08
upgrade c2 1.37.1
settle
images c2
delete c2
settle

# The channel for node images brings newer ones in the cluster's minute of the day, but not the one that was taken back.
image 1.36.3 2026.01.15
wait 90000
settle
images c0
images c1
stop
