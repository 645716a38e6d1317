const zeroByte = Buffer.alloc(1);

/** The smallest key of a key-value store after this one: where a walk goes on that ended with it. */
export function keyAfter(key: Buffer): Buffer<ArrayBuffer> {
  return Buffer.concat([key, zeroByte]);
}
