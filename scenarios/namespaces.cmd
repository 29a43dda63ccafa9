# Managed namespaces: made, taken over or not, put right, given up, whatever becomes of the service and of the cluster meanwhile.
start
create c1 np1=1
# Before there is an API, it waits for it.
wait 0.1
namespace c1 dev cpu=2 label=team:blue
namespaces c1
settle
namespaces c1
trace
# One that is there already is somebody else's.
own-namespace c1 theirs
namespace c1 theirs
namespace c1 kube-system
namespace c1 dev cpu=3
settle
namespaces c1
operations
trace
# The service dies with what it was about to do.
fail set-namespace 2
namespace c1 test delete=Delete
kill
start
settle
namespaces c1
# What goes back in time is set right.
wait 100
namespace c1 late
settle
wait 30
restore c1 60
settle
namespaces c1
# A stopped cluster keeps what is asked for, and applies it when it starts.
power c1 off
settle
namespace c1 still
drop-namespace c1 dev
namespaces c1
power c1 on
settle
namespaces c1
# What is kept stays, and what is deleted goes.
drop-namespace c1 dev
drop-namespace c1 test
settle
namespaces c1
# It is there, and may be taken over.
namespace c1 dev
settle
namespaces c1
namespace c1 dev adopt=Always
settle
namespaces c1
# They go with their cluster.
delete c1
settle
operations
