# Snapshots of disks: taken while a pod uses the disk, and what claims begin with.
start
create c1 np1=2
settle
claim c1 data 5
use c1 data vmss000000
settle
snapshot c1 before data
settle
volumes c1
trace
claim c1 again 6 snapshot=before
use c1 again vmss000001
settle
volumes c1
trace
# What cannot be had is told.
claim c1 small 1 snapshot=before
use c1 small vmss000000
snapshot c1 none nothing
settle
volumes c1
leave c1 small
drop-claim c1 small
drop-snapshot c1 none
# The disk goes, and what was taken of it stays.
leave c1 data
drop-claim c1 data
settle
volumes c1
# Calls that fail are made again; so are those whose answer was lost.
fail ensure-volume 2
fail-after set-volume 2
snapshot c1 more again
settle
kill
drop-snapshot c1 before
wait 60
start
settle
volumes c1
# All of them go with their cluster.
delete c1
settle
volumes
records
