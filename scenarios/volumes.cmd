# Claims of volumes: made when a pod needs them, on one node at a time, there as long as they are wanted.
start
create c1 np1=2
settle
trace
volumes c1
claim c1 data 5
settle
volumes c1
use c1 data vmss000000
settle
volumes c1
trace
# A class may have it made at once; a copy begins with what the other has.
class c1 quick immediate
claim c1 cache 1 class=quick
settle
claim c1 copy 5 from=data
use c1 copy vmss000001
settle
volumes c1
trace
# What cannot be had is told, and keeps nobody else waiting.
claim c1 shared 1 modes=ReadWriteMany
use c1 shared vmss000000
settle
volumes c1
leave c1 shared
drop-claim c1 shared
settle
# It grows while it is used, and is as large as that once it is used again.
grow c1 data 8
grow c1 cache 2
settle
volumes c1
use c1 cache vmss000001
settle
volumes c1
trace
# The pod moves: one node lets go before the other has it.
use c1 data vmss000001
settle
volumes c1
trace
# The node dies: what is on it is had by another, and nowhere twice.
vanish vmss000001
use c1 data vmss000000
settle
volumes c1
heal
settle
# A node that is told to go loses what it has when it has gone.
use c1 data vmss000001
settle
trace
pool c1 np1 1
settle
volumes c1
trace
use c1 data
use c1 cache
settle
# The service goes and comes.
kill
leave c1 cache
grow c1 data 9
wait 60
start
settle
volumes c1
# Calls that fail are made again; so are those whose answer was lost.
fail set-volume 2
fail ensure-volume 2
claim c1 more 3
use c1 more
settle
fail-after set-volume 3
fail-after attach-volume 1
fail-after detach-volume 1
leave c1 more
settle
fail-after delete-volume 1
drop-claim c1 more
drop-claim c1 copy
settle
volumes c1
# A claim that is used stays until its pod has ended.
drop-claim c1 data
settle
volumes c1
leave c1 data
settle
volumes c1
# With the policy Retain, what is on it outlives the claim.
class c1 kept retain immediate
claim c1 archive 2 class=kept
settle
drop-claim c1 archive
settle
volumes c1
# Stopped and started, all is where it was.
use c1 cache
settle
power c1 off
settle
volumes
power c1 on
settle
use c1 cache
settle
volumes c1
# All of them go with their cluster.
delete c1
settle
volumes
records
