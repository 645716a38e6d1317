/** iSCSI names of initiators (RFC 7143 §4.2.7): iqn., eui. and naa., in their normal form. */

export const initiatorNameBytesMax = 223;

const formats: readonly RegExp[] = [
  /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[^\s\p{C}]+)?$/u,
  /^eui\.[0-9a-f]{16}$/,
  /^naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})$/,
];

/** As it is compared: RFC 3722 folds case and compatible characters. null: it is no iSCSI name. */
export function initiatorNameOf(text: string): string | null {
  const name = text.normalize("NFKC").toLowerCase();
  if (Buffer.byteLength(name) > initiatorNameBytesMax) return null;
  return formats.some((format) => format.test(name)) ? name : null;
}
