"""The attacks of the threat model, one test each: every test asserts that its attack was really carried out."""
