/** iSCSI names (RFC 7143 §4.2.7), of initiators and of targets. */

export const iscsiNameBytesMax = 223;

/** One pattern a type: iqn with the month its naming authority had the domain, eui-64, naa. */
const types: readonly RegExp[] = [
  /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[^.:]+(?:\.[^.:]+)*(?::.+)?$/u,
  /^eui\.[0-9a-f]{16}$/,
  /^naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})$/,
];

/**
 * RFC 3722 §6: of ASCII only letters, digits, dash, dot and colon; and the underscore, which names
 * in use have. Spaces and controls of other scripts are excluded too.
 */
const allowed = /^(?:[-.:_a-z0-9]|[^\0-\x7f\p{C}\p{Z}])+$/u;

/** The form in which names compare (RFC 3722: NFKC, folded); undefined when it is no name. */
export function canonicalName(name: string): string | undefined {
  const folded = name.normalize("NFKC").toLowerCase().normalize("NFKC");
  if (Buffer.byteLength(folded) > iscsiNameBytesMax || !allowed.test(folded)) return undefined;
  return types.some((type) => type.test(folded)) ? folded : undefined;
}
