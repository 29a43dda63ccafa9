# An engine of network policies: its image is built on the host with the first cluster that asks for it, and brought onto nodes.
start
create c1 np1=2
settle
policies c1
trace
# It comes to nodes that are there. Nothing else changes while the image is being built.
policy c1 calico
wait 20
show c1
policies c1
# The service dies meanwhile; the build fails, and an answer is lost.
fail ensure-addon-image 2
fail-after ensure-addon-image 1
kill
start
settle
policies c1
operations
trace
# Another name of the same engine: no machine is touched.
policy c1 azure
settle
policies c1
trace
# New nodes have it, and so does a node that is made anew.
pool c1 np1 3
settle
policies c1
ail vmss000000 silent reimage
settle
policies c1
# The image is there for the next cluster.
fail ensure-addon-image 1
create c2 np1=1 plugin=kubenet
wait 0.1
policy c2 azure
policy c2 cilium
policy c2 calico
settle
policies c2
# Without an engine, nodes are made anew: its rules go with them.
fail delete-objects 1
policy c1 none
settle
policies c1
policies c2
operations
trace
# A cluster that brings its own plugin brings its own engine.
create c3 np1=1 plugin=none
policy c3 calico
settle
policies c3
