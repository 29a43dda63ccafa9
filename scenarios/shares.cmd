# Shares: found by all machines from the moment they are made, and given to nobody.
start
create c1 np1=2
settle
claim c1 files 5 class=azurefile-csi modes=ReadWriteMany
settle
volumes c1
trace
use c1 files vmss000001
settle
volumes c1
trace
# What cannot be had is told.
claim c1 raw 1 class=azurefile-csi block
settle
volumes c1
drop-claim c1 raw
# It grows while it is used, and the service may go meanwhile.
grow c1 files 8
kill
wait 60
start
settle
volumes c1
# A copy of it; the node that uses it dies.
claim c1 copy 8 class=azurefile-csi from=files
vanish vmss000001
use c1 files vmss000000
settle
volumes c1
heal
settle
# A snapshot of it, and a share that begins with that; it goes before the share does.
snapshot c1 before files
claim c1 again 8 class=azurefile-csi modes=ReadWriteMany snapshot=before
settle
volumes c1
drop-snapshot c1 before
settle
drop-claim c1 again
settle
volumes c1
# Stopped and started, all machines find it again.
power c1 off
settle
volumes
power c1 on
settle
volumes
leave c1 files
drop-claim c1 files
settle
volumes c1
delete c1
settle
volumes
records
