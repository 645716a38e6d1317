/** What runs: the same number as in package.json (tools/build-version.test.ts). */
export const buildVersion = "0.1.0";
