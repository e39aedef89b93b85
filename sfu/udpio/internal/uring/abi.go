package uring

// What follows is of include/uapi/linux/io_uring.h.

const (
	featureSingleMmap = 1 << 0 // 5.4
	featureNoDrop     = 1 << 1 // 5.5
	featureExtArg     = 1 << 8 // 5.11

	offsetRings   = 0
	offsetEntries = 0x10000000

	enterGetevents = 1 << 0
	enterExtArg    = 1 << 3

	sqOverflow = 1 << 1

	opSendmsg = 9
)

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32

	sqOff struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cqOff struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// submission is struct io_uring_sqe.
type submission struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, opFlags  uint32
	id            uint64
	_             [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	id     uint64
	result int32
	flags  uint32
}

// getevents is struct io_uring_getevents_arg.
type getevents struct {
	sigmask     uint64
	sigmaskSize uint32
	_           uint32
	duration    uint64
}
