# An ingress controller: its image is built on the host with the first cluster that asks for it; its objects come with it.
start
create c1 np1=2
settle
routing c1
ingress c1 AnnotationControlled
wait 20
show c1
routing c1
# The service dies meanwhile, and the build fails.
fail ensure-addon-image 2
kill
start
settle
routing c1
operations
# Where it is reached is its Service's affair: nothing is built, no machine is touched.
ingress c1 Internal
settle
routing c1
ingress c1 None
# With the kinds of the Gateway API it has a class of them as well.
gateways c1 Standard
settle
routing c1
# Without the controller, the kinds stay until they are not asked for either.
fail delete-objects 1
ingress c1 off
settle
routing c1
gateways c1 Disabled
settle
routing c1
# The image is there for the next cluster.
create c2 np1=1
settle
ingress c2 External
settle
routing c2
