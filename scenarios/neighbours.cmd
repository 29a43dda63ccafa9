# Clusters do not wait for each other, and have the same ranges.
start
create c1 np1=1
create c2 np1=1 plugin=azure
create c3 np1=1 plugin=none
settle
show c1
show c2
show c3
records
delete c2
settle
show c1
