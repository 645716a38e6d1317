/** Every message between bricks, by number; numbers are never reused. */
export const messageType = {
  /** control/raft: one Raft message. */
  raft: 1,
  /** control/membership: keepalive and its answer (lease). */
  keepalive: 2,
  /** control: a request that only the Raft leader can carry out, forwarded to it. */
  propose: 3,
  /** control/recovery: promise a view and report what the replica holds. */
  shardReport: 4,
  /** control/recovery: gather the union of the reports at one brick. */
  shardAssemble: 5,
  /** control: what a brick has to say for `endisk status`. */
  brickStats: 6,

  /** map: gateway to primary. */
  mapWrite: 16,
  mapLookup: 17,
  mapFence: 18,
  mapCancel: 19,
  /** map: between the replicas of a shard. */
  mapReplica: 20,
  mapRehint: 21,
  /** map: a brick gathering the union of a recovery. */
  mapFetch: 22,
  /** map: gateway to primary, changes of several grains at once. */
  mapGroup: 23,
  /** map: primary to gateway, a grain is in another chunk now. */
  mapForget: 24,

  /** chunk: store, fetch, ask for presence. */
  chunkPut: 32,
  chunkGet: 33,
  chunkHas: 34,
  /** chunk: fetch a chunk from another brick and keep it. */
  chunkCopy: 35,
  /** gc: keep these chunks in an epoch, and say which of them are there. */
  chunkMark: 36,
  /** chunk: fetch parts of chunks. */
  chunkSlices: 37,
  /** chunk: the map names this brick for chunks that it lacks, and too few others have them. */
  chunkHeal: 38,
  /** chunk: store several at once. */
  chunkPuts: 39,

  /** crypt: a new data key to be kept; one that a brick lacks; whether a retired one is gone. */
  keyPut: 40,
  keyGet: 41,
  keyGone: 42,

  /** volume: a portal to the attached gateway. */
  volumeRead: 48,
  volumeWrite: 49,
  volumeUnmap: 50,
  volumeAllocation: 51,
  volumeCancel: 52,
  volumeCompareAndWrite: 53,
  volumeOrWrite: 54,
  volumeCopy: 55,
  /** volume: the attachment's holder is asked to give it to another brick. */
  volumeMove: 56,
  /** volume: whether a brick acts by a unit's record, and what that ended has settled there. */
  unitSettle: 57,
  /** volume: a portal to the attached gateway, as the commands above. */
  volumeWriteAtomic: 58,
  /** volume: a part of a read that is too long for one message. */
  volumeReadPart: 59,
} as const;

export type MessageType = (typeof messageType)[keyof typeof messageType];
